"""Our compressors inside other people's training loops."""
