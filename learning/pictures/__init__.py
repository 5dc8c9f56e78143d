"""Pictures of how good a model is, as SVG that needs nothing beside it. Imports no torch."""
