"""The HTML report: what stands in it as plain data, and the templates that lay it out.

`engine` fills templates so that nothing foreign can act; `theme` has the colours; `source`, `figures`,
`pictures`, `cards`, `rulepages` and `overview` turn a report into what the templates show. jinja2 is
imported here and nowhere else.
"""
