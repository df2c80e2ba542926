"""Models, trainers and convert plugins that ship with fsdeploy."""
