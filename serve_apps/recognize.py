"""The recognition service for Ray's own commands: `serve run serve_apps.recognize:app bundle=runs/islr/bundle`."""

from ray.serve import Application

from sign_dist.on_ray import serving


def app(args: serving.ServeArgs) -> Application:
    return serving.application(args)
