"""Wire formats: thin translations between what clients speak and `GenerationRequest` and chunks."""
