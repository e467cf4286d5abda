"""What is left of an erased person, sought in every place where something could be."""
