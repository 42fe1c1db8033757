"""Charts: data, numbers, SVG and matplotlib; `python tests/output/test_charts.py` writes golden files."""

from __future__ import annotations

import builtins
import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec
import pytest

from normdoctor.errors import UsageError
from normdoctor.findings import Confidence, Finding, Severity
from normdoctor.output.charts import Chart, charts, charts_of, conversion
from normdoctor.output.charts.base import MOST, Axis, Heat, Lines, Series, fewer, figure
from normdoctor.output.charts.layout import arranged
from normdoctor.output.charts.plot import KINDS, draw
from normdoctor.output.charts.scales import range_of, shortened, thinned, tick
from normdoctor.output.charts.svg import to_svg
from normdoctor.report import Report, TargetSummary
from normdoctor.views.activity import Activity
from normdoctor.views.batchsizes import BatchSizes
from normdoctor.views.gradients import GradientPoint
from normdoctor.views.neighbourhood import Neighbour, Neighbourhood
from normdoctor.views.profile import ProfilePoint
from normdoctor.views.runningstats import RunningStats

GOLDEN = Path(__file__).parent / "golden"
SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<script>alert('x')</script>\x1b[31m\u202e&\"$x_\\y$"
ROLES = ("linear", "norm", "activation")


def point(depth, variance=1.0, role=None, **fields):
    role = role or ROLES[depth % 3]
    known = {"site": f"m{depth}:{role}", "module": f"m{depth}", "kind": role, "mean": 0.5, "between": 0.5}
    return ProfilePoint(role=role, depth=depth, variance=variance, **(known | fields))


def stats(module, shift=0.1, ratio=1.1):
    return RunningStats(
        module=module, call=0, channels=8, batches=3, training=False, initial=0.0, shift=shift,
        worst_shift=2 * shift, worst_shift_channel=3, ratio=ratio, worst_ratio=ratio**2,
        worst_ratio_channel=1,
    )  # fmt: skip


def sizes(module, per_sample):
    return BatchSizes(
        module=module, call=0, channels=8, positions=4, samples=32, per_sample=per_sample, batch=8, passes=4
    )


def active(site, *shares, **fields):
    shares = shares or (0.25, 0.0, 0.0, 0.25, 0.5, 0.0, 0.0)
    return Activity(
        site=site, module=site.partition(":")[0], kind="relu", depth=0, units=8, observations=99, batches=3,
        shares=shares, **({"dead": shares[0]} | fields),
    )  # fmt: skip


def neighbourhood(name="block.norm"):
    nodes = [("input", "input", ""), ("conv2d", "linear", "block.conv"), ("batch_norm", "norm", name)]
    nodes += [("relu", "activation", "block.relu"), ("add", "add", "block")]
    return Neighbourhood(
        finding="0123456789abcdef", code="ND101", module=name, above=1, places=2,
        nodes=tuple(
            Neighbour(kind=kind, role=role, module=module, shape=(8, 16, 4, 4), chosen=role == "norm")
            for kind, role, module in nodes
        ),
        edges=((0, 1), (1, 2), (2, 3), (3, 4), (0, 4)),
    )  # fmt: skip


def target(**fields):
    known = {
        "profile": tuple(point(depth, 0.5**depth) for depth in range(6)),
        "gradients": tuple(
            GradientPoint(
                parameter=f"m{i}.weight", module=f"m{i}", depth=i, elements=8, rms=10.0**-i, low=10.0**-i / 2,
                high=10.0**-i * 2, seen=4, looks=4,
            )
            for i in range(4)
        ),
        "activity": (active("m2:relu"), active("m5:tanh", dead=None, saturated=0.5)),
        "running_stats": (stats("bn1"), stats("bn2", 1.0, 4.0)),
        "batch_sizes": (sizes("bn1", 2.0), sizes("bn2", 100.0), sizes("bn3", 10.0)),
        "neighbourhoods": (neighbourhood(),),
    }  # fmt: skip
    return TargetSummary(name="net.py:Net", **(known | fields))


def every(**fields):
    return {chart.kind: chart for chart in charts_of(target(**fields))}


def drawn(svg):
    """All text of an SVG outside of tips, its title and its description."""
    return [one.text for one in ET.fromstring(svg).iter(f"{SVG}text")]


def test_there_is_one_of_each_kind_in_a_fixed_order():
    assert tuple(every()) == tuple(KINDS)
    assert charts_of(TargetSummary(name="x")) == ()
    both = charts(Report(targets=(target(), msgspec.structs.replace(target(), name="b"))))
    assert [chart.target for chart in both] == ["net.py:Net"] * len(KINDS) + ["b"] * len(KINDS)
    assert charts(Report()) == ()


@pytest.mark.parametrize("kind", KINDS)
def test_an_svg_is_well_formed_labelled_and_the_same_each_time(kind):
    chart = every()[kind]
    svg = to_svg(chart, "first")
    assert svg == to_svg(every()[kind], "first")
    root = ET.fromstring(svg)
    assert root.get("role") == "img"
    ids = [one.get("id") for one in root.iter() if one.get("id")]
    assert ids == root.get("aria-labelledby").split() == ["first-title", "first-desc"]
    assert root[0].text == chart.title
    assert root[1].text == chart.caption
    assert "script" not in svg
    assert not re.search(r'(fill|stroke|style)="[^"]*#(?<!,#)', svg), "a colour without a custom property"
    assert set(re.findall(r"var\((--nd-[\w-]+),#[0-9a-f]{6}\)", svg)) <= {
        f"--nd-{name}" for name in ("ink", "muted", "grid", "paper", "box", "1", "2", "3", "4", "bad")
    }
    width, height = map(float, root.get("viewBox").split()[2:])
    for one in root.iter(f"{SVG}text"):
        assert 0 <= float(one.get("x")) <= width
        assert 0 <= float(one.get("y")) <= height
        assert one.text
    for row in chart.rows:
        assert len(row) == len(chart.headers)


def test_the_numbers_are_those_of_the_drawing():
    for chart in every().values():
        cells = {cell for row in chart.rows for cell in row}
        if isinstance(chart.drawing, Lines):
            for series in chart.drawing.series:
                if series.name != "this run":
                    assert {figure(value) for value in series.y} <= cells, chart.kind
                assert len(series.x) == len(series.y)
            names = chart.drawing.x.names
            assert names == () or len(names) == len(chart.rows)
        elif isinstance(chart.drawing, Heat):
            for name, shares in zip(chart.drawing.rows, chart.drawing.cells, strict=True):
                column = chart.headers.index(name)
                shown = [f"{100 * share:.3g} %" if share == share else "" for share in shares]  # noqa: PLR0124
                assert shown == [row[column] for row in chart.rows]
        else:
            assert len(chart.drawing.boxes) == len(chart.rows)
            reads = [
                ", ".join(str(edge.source + 1) for edge in chart.drawing.edges if edge.target == place)
                for place in range(len(chart.rows))
            ]
            assert reads == [row[4] for row in chart.rows]
            assert [box.chosen for box in chart.drawing.boxes] == [bool(row[5]) for row in chart.rows]


def test_a_tip_tells_the_value_of_each_point():
    said = [one.text for one in ET.fromstring(to_svg(every()["signal"])).iter(f"{SVG}title")]
    assert said[1:] == [
        f"{name}: {figure(value)}"
        for series in every()["signal"].drawing.series
        for name, value in zip(
            [every()["signal"].drawing.x.names[int(x)] for x in series.x], series.y, strict=True
        )
    ]


def test_foreign_text_is_text():
    fields = {
        "profile": (point(0, site=HOSTILE, module=""),),
        "activity": (active(HOSTILE),),
        "running_stats": (stats(HOSTILE),),
        "batch_sizes": (sizes(HOSTILE, 2.0),),
        "neighbourhoods": (neighbourhood(HOSTILE),),
        "gradients": (GradientPoint(parameter=HOSTILE, module="", depth=0, elements=1, rms=1.0),),
    }
    for chart in charts_of(target(**fields)):
        svg = to_svg(chart, 'a"b')
        assert "<script" not in svg
        assert "\x1b" not in svg
        assert "\u202e" not in svg
        root = ET.fromstring(svg)
        assert {one.tag.removeprefix(SVG) for one in root.iter()} <= {
            *("svg", "title", "desc", "g", "path", "line", "circle", "rect", "text"),
        }
        assert "<script" in "".join(root.itertext()), chart.kind


def lines(*values, scale="log", **axis):
    x = tuple(map(float, range(len(values))))
    return Chart(
        kind="signal", title="t", caption="c", headers=("a",), rows=(),
        drawing=Lines(
            x=Axis(names=tuple(f"n{i}" for i in range(len(values)))), y=Axis(scale=scale, **axis),
            series=(Series(name="s", x=x, y=values),),
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("values", "rings", "crosses"),
    [
        ((1.0, math.nan, 2.0), 0, 1),
        ((math.inf, -math.inf, math.nan), 0, 3),
        ((0.0, 1e-3, -1.0), 2, 0),
        ((0.0,), 1, 0),
        ((5e-324, 1.7e308), 0, 0),
        ((-1.7e308, 1.7e308), 1, 0),
        ((0.0, 5e-324), 1, 0),
        ((1e20, 1e20 * (1 + 1e-15)), 0, 0),
    ],
)
def test_what_has_no_place_on_the_scale_is_marked_at_the_edge(values, rings, crosses):
    for scale in ("log", "linear"):
        svg = to_svg(lines(*values, scale=scale))
        assert "nan" not in re.sub(r"<title>.*?</title>", "", svg)
        assert svg.count('r="3"') == (rings if scale == "log" else 0)
        assert svg.count("l8 8m0-8l-8 8") == crosses
    assert to_svg(lines(1e-5, 1.0, floor=1e-3)).count('r="3"') == 1


def test_one_layer_and_a_constant():
    for scale in ("log", "linear"):
        svg = to_svg(lines(0.5, scale=scale))
        assert svg.count("<circle") == 2
        assert to_svg(lines(0.5, 0.5, 0.5, scale=scale)).count("<circle") == 4
    one = every(activity=(active("m:sigmoid", saturated=1.0),))["activity"]
    assert to_svg(one).count("<rect") > 3
    only = Activity(site="s", module="s", kind="softplus", depth=0, units=1, observations=1, batches=1)
    assert "activity" not in every(activity=(only,))


@pytest.mark.parametrize("depth", [300, 2000])
def test_deep_nets_stay_readable_and_small(depth):
    names = [f"encoder.layers.{i}.mlp.act:relu" for i in range(depth)]
    spike = depth // 2 + 1
    deep = every(
        profile=tuple(point(i, 1e6 if i == spike else 1.0, "linear", site=names[i]) for i in range(depth)),
        activity=tuple(active(name, dead=1.0 if i == spike else 0.0) for i, name in enumerate(names)),
        running_stats=tuple(stats(name) for name in names),
        batch_sizes=tuple(sizes(name, 1.0 + i) for i, name in enumerate(names)),
    )
    for kind, chart in deep.items():
        svg = to_svg(chart)
        assert len(svg) < 150_000, kind
        assert len(drawn(svg)) < 60, kind
    signal = deep["signal"]
    assert len(signal.rows) == min(depth, MOST) == len(signal.drawing.x.names)
    assert 1e6 in signal.drawing.series[0].y, "the largest is among those that are shown"
    assert ("Shown are" in signal.caption) == (depth > MOST)


def test_fewer_keeps_the_order_and_the_extremes():
    values = [math.sin(i * i) for i in range(5000)]
    values[777] = math.nan
    kept = fewer(list(enumerate(values)), lambda one: one[1])
    assert MOST / 2 <= len(kept) <= MOST
    assert kept == sorted(kept, key=lambda one: one[0])
    known = [value for value in values if value == value]  # noqa: PLR0124
    assert {min(known), max(known)} <= {value for _, value in kept}
    assert 777 in {place for place, _ in kept}
    assert fewer([3, 1, 2], float) == [3, 1, 2]


@pytest.mark.parametrize(
    ("values", "scale", "ticks"),
    [
        ((0.02, 30.0), "log", ["0.01", "0.1", "1", "10", "100"]),
        ((0.5, 0.7), "log", ["0.1", "1"]),
        ((), "log", ["1", "10"]),
        ((0.0, 10.0), "linear", ["0", "2", "4", "6", "8", "10"]),
        ((3.0, 3.0), "linear", ["1", "2", "3", "4", "5"]),
        ((-1e308, 1e308), "linear", ["-1e300", "-5e299", "0", "5e299", "1e300"]),
        ((), "linear", ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
    ],
)
def test_ticks(values, scale, ticks):
    found = range_of(values, Axis(scale=scale))
    assert [tick(value) for value in found.ticks] == ticks
    assert all(0 <= found.share(value) <= 1 for value in values)


def test_names_lose_their_middle():
    assert shortened("layer1.0.conv1", 20) == "layer1.0.conv1"
    assert shortened("encoder.layers.11.attention.out", 16) == "enco..ention.out"
    assert len(shortened("x" * 99, 16)) == 16
    assert thinned(300, 12)[:3] == [0, 25, 50]
    assert thinned(0, 12) == []


def test_a_layout_has_no_boxes_above_each_other():
    edges = [(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 4), (0, 4), (4, 5), (6, 5), (0, 5)]
    places, ways = arranged(7, edges)
    for source, reader in edges:
        assert places[source].rank < places[reader].rank
    assert places[6].rank == places[5].rank - 1, "an input stands above its first reader"
    for one, other in ((a, b) for a in range(7) for b in range(a)):
        if places[one].rank == places[other].rank:
            apart = abs(places[one].centre - places[other].centre)
            assert apart >= (places[one].width + places[other].width) / 2 - 1e-3
    for place in places:
        assert place.width / 2 - 1e-3 <= place.centre <= 1 - place.width / 2 + 1e-3
    assert [len(way) for way in ways] == [places[b].rank - places[a].rank - 1 for a, b in edges]
    assert arranged(0, []) == ([], [])


def test_real_nets():
    torch = pytest.importorskip("torch")
    nn = torch.nn
    import normdoctor

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(16)
            self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
            self.feed = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))

        def forward(self, x):
            h = self.norm(x)
            x = h + self.attention(h, h, h)[0]
            return x + self.feed(x)

    torch.manual_seed(0)
    conv = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU()
    )
    with torch.no_grad():
        conv[4].weight.zero_()
        conv[4].bias[:4] = -1
        conv[4].bias[4:] = 1
    data = [torch.randn(16, 3, 8, 8) for _ in range(2)]
    report = normdoctor.check(conv, data[0], data=data)
    found = {chart.kind: chart for chart in charts(report)}
    assert set(found) == set(KINDS) - {"gradients"}
    assert found["activity"].rows[1][-3] == "50 %"
    assert found["activity"].drawing.cells[-1][1] == 0.5
    assert found["neighbourhood"].about in {one.fingerprint for one in report.findings}
    assert found["batch-noise"].rows[0][0] == "1"
    words = [torch.randn(4, 6, 16) for _ in range(2)]
    blocks = normdoctor.check(nn.Sequential(Block(), Block()), words[0], data=words)
    kinds = [chart.kind for chart in charts(blocks)]
    assert kinds[:2] == ["signal", "activity"]
    assert not {"batch-noise", "running-mean"} & set(kinds)
    for chart in (*charts(report), *charts(blocks)):
        ET.fromstring(to_svg(chart))


def test_a_conversion():
    torch = pytest.importorskip("torch")
    nn = torch.nn
    import normdoctor

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)
    )
    x = torch.randn(8, 3, 8, 8)
    result = normdoctor.convert(model, "batch->group", inputs=x)
    chart = conversion(result)
    assert chart.about == "batch->group"
    assert [row[0] for row in chart.rows] == ["1", "4", "outputs in eval mode", "outputs in train mode"]
    assert chart.rows[0][2].startswith("GroupNorm")
    assert chart.drawing.series[0].y == tuple(result.layers[path].relative for path in ("1", "4"))
    assert len(chart.drawing.levels) == 2
    ET.fromstring(to_svg(chart))
    assert conversion(normdoctor.convert(model, "batch->group")) is None


class TestPlot:
    @pytest.fixture(autouse=True)
    def figures(self):
        """Axes are drawn without a screen, and what was opened is closed."""
        matplotlib = pytest.importorskip("matplotlib")
        from matplotlib import pyplot

        before = matplotlib.get_backend()
        pyplot.switch_backend("agg")
        settings = dict(matplotlib.rcParams)
        yield
        assert dict(matplotlib.rcParams) == settings
        pyplot.close("all")
        pyplot.switch_backend(before)

    @pytest.mark.parametrize("kind", KINDS)
    def test_each_kind(self, kind):
        ax = Report(targets=(target(),)).plot(kind)
        ax.figure.canvas.draw()
        assert ax.get_title() == every()[kind].title

    def test_the_lines_are_the_figures(self):
        from matplotlib import pyplot

        own = pyplot.figure().subplots()
        report = Report(targets=(target(),))
        assert report.plot("signal", own) is own
        assert own.get_yscale() == "log"
        for line, series in zip(own.get_lines(), every()["signal"].drawing.series, strict=True):
            assert tuple(line.get_xdata()) == series.x
            assert tuple(line.get_ydata()) == series.y
        heat = report.plot("activity").images[0].get_array()
        assert heat[1, 0] == 0.0
        assert heat[3, 0] == 0.5

    @pytest.mark.parametrize("values", [(math.nan, 1.0, 0.0), (math.inf,), (0.0, 0.0), ()])
    def test_spoilt_figures_and_foreign_names(self, values):
        for scale in ("log", "linear"):
            draw(lines(*values, scale=scale)).figure.canvas.draw()
        fields = {
            "profile": (point(0, site=HOSTILE, module=""),),
            "neighbourhoods": (neighbourhood(HOSTILE),),
        }
        for kind in ("signal", "neighbourhood"):
            Report(targets=(target(**fields),)).plot(kind).figure.canvas.draw()

    def test_which_one(self):
        one = Finding(
            code="ND101",
            name="x",
            severity=Severity.INFO,
            confidence=Confidence.HIGH,
            message="m",
            modules=("b",),
        )
        around = msgspec.structs.replace(neighbourhood(), finding=one.fingerprint, module="b", code="ND101")
        other = target(neighbourhoods=(neighbourhood(), around))
        report = Report(
            targets=(target(profile=()), msgspec.structs.replace(other, name="b")), findings=(one,)
        )
        assert report.plot("neighbourhood", about="ND101").get_title() == "Around ND101 at b"
        assert report.plot("neighbourhood", about=one.fingerprint).get_title() == "Around ND101 at b"
        assert report.plot("neighbourhood").get_title() == "Around ND101 at block.norm"
        assert report.plot("signal").get_title() == "Signal by depth", "of the first target that has one"
        with pytest.raises(UsageError, match=r"no figures for the chart 'signal'.*\n  It has: gradients"):
            report.plot("signal", target="net.py:Net")
        with pytest.raises(UsageError, match="no target 'c'"):
            report.plot("signal", target="c")
        with pytest.raises(UsageError, match="about 'ND999'"):
            report.plot("neighbourhood", about="ND999")

    def test_errors(self, monkeypatch):
        with pytest.raises(UsageError, match="Did you mean `signal`"):
            Report().plot("singal")
        with pytest.raises(UsageError, match="needs a watched training\n  It has no charts"):
            Report().plot("gradients")
        real = builtins.__import__

        def without(name, *args, **kwargs):
            if name.partition(".")[0] == "matplotlib":
                raise ImportError(f"No module named {name!r}")
            return real(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", without)
        with pytest.raises(UsageError, match=r"pip install 'normdoctor\[plot\]'"):
            Report(targets=(target(),)).plot("signal")


SMALL = ("signal", "neighbourhood", "activity")


@pytest.mark.parametrize("kind", SMALL)
def test_golden(kind):
    assert to_svg(every()[kind], "chart") + "\n" == (GOLDEN / f"chart-{kind}.svg").read_text(encoding="utf-8")


def test_wrong_kinds_and_axes_are_refused():
    pytest.importorskip("matplotlib")
    for kind, ax, said in (([], None, "no chart"), (None, None, "no chart"), ("signal", 3, "expected axes")):
        with pytest.raises(UsageError, match=said):
            Report().plot(kind, ax)


if __name__ == "__main__":
    for name in SMALL:
        (GOLDEN / f"chart-{name}.svg").write_text(to_svg(every()[name], "chart") + "\n", encoding="utf-8")
