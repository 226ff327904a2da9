"""Write, check and estimate NKI kernels where there is no Trainium: an interpreter and a model of time.

Nothing here was compared with a run of ours on hardware; docs/nki-model.md has what others published.
"""
