"""Specifications of the managed services of Google and Azure: plain data in the form of their REST APIs and YAML."""
