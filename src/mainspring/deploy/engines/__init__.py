"""Steps of a pipeline on engines beyond the worker's machine, as Mainspring's own run asks for them."""
