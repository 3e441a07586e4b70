import pytest

from berth.cli.templates import render
from berth.errors import InvalidArgument

DATA = {
    "Name": "/web",
    "State": {"Status": "running", "Pid": 12, "Dead": False},
    "Env": ["A=1", "B=2"],
    "Labels": {"b": "2", "a": "1", "x.y": "z"},
    "None": None,
    "Ports": {"80/tcp": [{"HostPort": "8080"}], "90/tcp": []},
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.State.Status}}", "running"),
        ("{{ .State.Pid }}!", "12!"),
        ("{{.State.Dead}} {{.None}}", "false <no value>"),
        ("{{json .Env}}", '["A=1","B=2"]'),
        ("{{json .State}}", '{"Status":"running","Pid":12,"Dead":false}'),
        ("{{.Env}} {{len .Env}}", "[A=1 B=2] 2"),
        ("{{.Labels}}", "map[a:1 b:2 x.y:z]"),
        ('{{index .Labels "x.y"}}{{index .Labels "no"}}', "z"),
        ('{{(index (index .Ports "80/tcp") 0).HostPort}}', "8080"),
        ('{{join .Env ", "}}', "A=1, B=2"),
        ('{{.Name | upper}} {{ .Name | printf "%s-%s" "x" }}', "/WEB x-/web"),
        ('{{index (split .Name "/") 1}}', "web"),
        ("{{range .Env}}<{{.}}>{{end}}", "<A=1><B=2>"),
        ("{{range $i, $e := .Env}}{{$i}}:{{$e}} {{end}}", "0:A=1 1:B=2 "),
        ("{{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}", "a=1;b=2;x.y=z;"),
        (
            "{{range $p, $b := .Ports}}{{$p}}{{range $b}}->{{.HostPort}}{{end}} {{end}}",
            "80/tcp->8080 90/tcp ",
        ),
        ("{{range .None}}x{{else}}none{{end}}", "none"),
        ("{{if .State.Dead}}dead{{else if .Env}}env{{else}}x{{end}}.", "env."),
        ('{{if eq .State.Status "running"}}up{{end}}', "up"),
        ("{{if and .Env (not .State.Dead)}}{{$.Name}}{{end}}", "/web"),
        ("{{with .State}}{{.Pid}}{{end}}", "12"),
        ("{{$x := .Name}}{{$x}}", "/web"),
        ("a  {{- .State.Pid -}}  b", "a12b"),
        ('{{/* nothing */}}{{`raw"`}}', 'raw"'),
        ("{{println .Name 1}}", "/web 1\n"),
        (
            '{{slice .Name 1 3}}{{slice .Name 2}} {{truncate .Name 2}}{{pad "x" 1 2}}|',
            "weeb /w x  |",
        ),
        ('{{"a\\tb\\u00e9é\\""}}', 'a\tbéé"'),
        ("{{if ge .State.Pid 12}}{{if le .State.Pid 11}}{{else}}twelve{{end}}{{end}}", "twelve"),
        ("plain", "plain"),
    ],
)
def test_a_template_is_filled_in(template, text):
    assert render(template, DATA) == text


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{.Nope}}", 'map has no entry for key "Nope"'),
        ("{{.State.Nope}}", 'map has no entry for key "Nope"'),
        ("{{foo .Name}}", 'function "foo" not defined'),
        ("{{foo}}", 'function "foo" not defined'),
        ("{{.Name", "unclosed action"),
        ("{{if .Name}}", "unexpected EOF"),
        ("{{end}}", "unexpected {{end}}"),
        ('{{index .Name "a"}}', "cannot index"),
        ("{{len}}", "len"),
        ('{{"open}}', "unterminated"),
        ("{{.Name | }}", "missing value"),
    ],
)
def test_a_bad_template_is_refused(template, message):
    with pytest.raises(InvalidArgument) as caught:
        render(template, DATA)
    assert message in str(caught.value)
