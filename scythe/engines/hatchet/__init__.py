"""The engine of a cluster: experiments as Hatchet tasks. Loads the SDK only when it is used."""
