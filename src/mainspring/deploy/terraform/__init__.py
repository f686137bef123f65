"""Terraform: modules for clouds, and the statements of IAM that they give."""
