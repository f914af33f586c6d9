"""Where EM, segments and meshes come from. Knows neither models nor people."""
