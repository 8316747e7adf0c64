from calib_jax import presets


def get_config(preset: str = ""):
    config = presets.get(preset)
    config.method = "ece_only"
    config.train.sft = "none"
    config.train.ece_weight = 1.0
    return config
