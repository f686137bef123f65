"""What is asked and what is answered: tensors, their types and checks, and how they travel."""
