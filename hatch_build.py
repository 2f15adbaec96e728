"""Ships the recipes inside the wheel: conf/ becomes raccoon/conf, so that `--config v2p/tiny` works anywhere."""

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CopyRecipes(BuildHookInterface):
    def initialize(self, version, build_data):
        # An editable install reads conf/ from the checkout itself.
        if version == "standard":
            build_data["force_include"]["conf"] = "raccoon/conf"
