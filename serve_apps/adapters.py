"""Many sets of adapters over one model, for Ray's own commands: `serve run serve_apps.adapters:app bundle=FOLDER_OF_BUNDLES`."""

from ray.serve import Application

from sign_dist.on_ray import adapters


def app(args: adapters.AdapterArgs) -> Application:
    return adapters.application(args)
