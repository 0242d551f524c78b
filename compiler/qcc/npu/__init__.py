"""An Edge-TPU-like accelerator: one description drives its compiler, its exact simulator and its cycle model."""
