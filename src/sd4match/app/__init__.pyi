from .layout import build_app as build_app
