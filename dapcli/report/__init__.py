"""What people and programs are told of a restoration: the JSON record, the console and the page."""
