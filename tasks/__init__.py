"""One effect each, thin: unpack a record, call editors or validations, write an artefact, return a record."""
