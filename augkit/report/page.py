"""HTML pages that hold all they need: one style, light and dark, tables that sort and copy, charts by Vega.

A page is a jinja2 template that extends `page.html.j2`. Nothing on it is fetched: pictures are data, and Vega's code is
in the page where it has a chart.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

if TYPE_CHECKING:
    import altair
    from PIL import Image

HERE = "augkit.report"
COLORS = {"many": "#3b6ea5", "medium": "#e0a030", "few": "#c0504d", "other": "#888888"}
"""One colour for the classes of each band, on light and dark alike."""


def render(template: str, facts: Mapping[str, Any], *, package: str = HERE) -> str:
    """A page as text.

    Args:
        template: of the package's folder `templates`; it extends `page.html.j2`, which every package finds.
        facts: what the template tells. Values that are strings are escaped; `chart` and `picture` give markup.
        package: whose template it is.

    Raises:
        jinja2.UndefinedError: the template names a fact that is not there.
    """
    loaders = [jinja2.PackageLoader(name, "templates") for name in dict.fromkeys((package, HERE))]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["vega"] = _vega
    return environment.get_template(template).render(**facts)


def chart(drawn: altair.Chart | altair.LayerChart | altair.VConcatChart, words: str, caption: str = "") -> Markup:
    """A chart as a figure that Vega draws when the page opens, in the page's colours.

    Args:
        drawn: with `width="container"` to fill the page's width. Its data are in the page, so keep them few.
        words: what a person hears who does not see it.
        caption: a sentence under it.

    Raises:
        ValueError: its data hold a nan or an infinity, which is no JSON: give None where nothing is known.
    """
    spec = json.dumps(drawn.to_dict(), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    below = Markup("<figcaption>{}</figcaption>").format(caption) if caption else ""
    return Markup(
        '<figure class="chart"><div class="vega" aria-label="{}"></div>'
        '<script type="application/json">{}</script>{}</figure>'
    ).format(words, Markup(spec.replace("<", "\\u003c")), below)


def picture(image: Image.Image, words: str, *, lossless: bool = False, attributes: str = "") -> Markup:
    """An image in the page, as WebP.

    Args:
        image: RGB.
        words: its alternative text.
        lossless: pixels stay what they are, as those of small images should.
        attributes: more of the tag's, as it is written.
    """
    return Markup('<img src="{}" alt="{}" width="{}" height="{}"{}>').format(
        data_uri(image, lossless=lossless),
        words,
        image.width,
        image.height,
        Markup(f" {attributes}" if attributes else ""),
    )


def data_uri(image: Image.Image, *, lossless: bool = False) -> str:
    """An image as a `data:` address, as WebP."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=lossless, quality=60 if lossless else 85, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


@cache
def _vega() -> Markup:
    """Vega, Vega-Lite and Vega-Embed, 0.9 MB, as the pinned library carries them."""
    import vl_convert

    return Markup(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script"))
