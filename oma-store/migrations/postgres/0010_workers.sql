-- Who recorded an operation: of an attach it is not to be seen on another machine. See ../NOTES.md for the rules.

ALTER TABLE volume_operations ADD COLUMN worker TEXT COLLATE "C";
