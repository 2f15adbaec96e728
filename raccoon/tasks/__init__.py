"""LightningModules: what trains the networks of `raccoon.models`, stage by stage."""
