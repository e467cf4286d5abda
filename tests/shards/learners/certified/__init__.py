"""The linear model whose erasures are certified."""
