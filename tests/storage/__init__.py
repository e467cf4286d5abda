"""What only one kind of store, or one module of storage, has to keep."""
