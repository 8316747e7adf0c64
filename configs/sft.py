from calib_jax import presets


def get_config(preset: str = ""):
    config = presets.get(preset)
    config.method = "sft"
    config.train.sft = "sft1"
    config.train.ece_weight = 0.0
    return config
