"""Theme of all apps, with system fonts and without external resources."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from sd4match.errors import ConfigError

if TYPE_CHECKING:
    import gradio

_FONTS = ("system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
_MONOSPACE = ("ui-monospace", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")
_OFFLINE = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}

CSS = """
.gradio-container { max-width: 1200px !important; margin: 0 auto !important; }
footer { display: none !important; }
.photo { gap: 4px !important; }
.photo img { max-height: 60vh; cursor: crosshair; }
#actions { gap: 6px; }
#status p { min-height: 2.6em; margin: 0; }
#progress p, .photo p { margin: 0; }
#progress .html-container, #status .html-container, .photo .html-container { padding: 0 !important; }
@media (max-width: 640px) {
  #moves button, #actions button { font-size: 14px; padding: 8px 2px; white-space: nowrap; }
  #moves, #actions .row { gap: 8px; }
  .photo img { max-height: max(140px, (100dvh - 400px) / 2); }
  #actions { position: sticky; bottom: 0; z-index: 1000; margin: 0 -16px; padding: 6px 16px 10px; width: auto; }
  #actions { background: var(--body-background-fill); border-top: 1px solid var(--border-color-primary); }
  #status p { max-height: 3.9em; overflow: auto; }
}
#progress .left-out { font-size: 0.8em; }
#status .refused { border-left: 4px solid #d55e00; padding-left: 8px; font-weight: 600; }
"""


def require_gradio() -> None:
    """Check that gradio is installed without importing it, since the import fixes its folder for temporary files.

    Raises:
        ConfigError: gradio is not installed.
    """
    if find_spec("gradio") is None:
        raise ConfigError("the app needs gradio: pip install 'sd4match[app]'")


def import_gradio() -> Any:
    """Import gradio with its telemetry switched off.

    Raises:
        ConfigError: it is not installed.
    """
    require_gradio()
    os.environ.update(_OFFLINE)  # read when gradio is imported
    import gradio

    return gradio


def build_theme() -> gradio.themes.Base:
    """Return the theme of all apps, which needs no fonts from a server."""
    gr = import_gradio()
    fonts, monospace = ([gr.themes.Font(name) for name in names] for names in (_FONTS, _MONOSPACE))
    theme = gr.themes.Default(primary_hue="blue", secondary_hue="sky", font=fonts, font_mono=monospace)
    return theme.set(block_info_text_color="*neutral_600", block_info_text_color_dark="*neutral_300")
