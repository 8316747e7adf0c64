from calib_jax import presets


def get_config(preset: str = ""):
    config = presets.get(preset)
    config.method = "rcft"
    config.train.sft = "sft2"
    config.train.ece_weight = 1.0
    return config
