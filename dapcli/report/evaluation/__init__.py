"""What people and programs are told of an evaluation: tables, files, figures and a page."""
