"""What `fsdeploy inspect` says: one module per family of files, imported when such a file is met."""
