from .layout import build_app as build_app
from .serving import launch_options as launch_options
