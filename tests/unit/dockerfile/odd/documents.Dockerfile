FROM scratch
COPY <<one <<-"two" plain /x/
1 $A
one
	2 $B
	two
RUN <<A cat && cat <<'B' | wc
first
A
second
B
RUN <<EOF
#!/bin/cat
text
EOF
ONBUILD RUN <<E
later
E
CMD <<EOF
