"""A network described as data: a neutral list of operations and the torch module that runs it."""
