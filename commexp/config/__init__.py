"""From the words of a command line and YAML files to a plan: schema, composing, components, validation, messages."""
