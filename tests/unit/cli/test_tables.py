from berth.cli.tables import show, table

ROWS = [{"ID": "1", "Name": "long name"}, {"ID": "22", "Name": "b"}]
COLUMNS = (("ID", "ID OF IT"), ("Name", "NAME"))


def test_columns_are_as_wide_as_their_widest_cell():
    assert table(["A", "B"], [["rather long", "x"]]) == "A             B\nrather long   x"
    assert table(["A", "B"], [["long", "x"], ["", ""]]) == "A         B\nlong      x\n          "


def test_a_plain_table_has_its_titles_even_without_rows():
    assert show(ROWS, COLUMNS) == "ID OF IT   NAME\n1          long name\n22         b"
    assert show([], COLUMNS, form="table") == "ID OF IT   NAME"


def test_a_table_template_has_titles_of_its_fields():
    form = "table {{.Name}}\\t{{.ID}}"
    assert show(ROWS, COLUMNS, form=form) == "NAME        ID OF IT\nlong name   1\nb           22"


def test_templates_and_json_are_a_line_each():
    assert show(ROWS, COLUMNS, form="{{.ID}}\\t{{.Name}}") == "1\tlong name\n22\tb"
    assert show(ROWS[:1], COLUMNS, form="json") == '{"ID":"1","Name":"long name"}'
    assert show([], COLUMNS, form="{{.ID}}") == ""
