-- ARGV: job, unit, token. Notes that a suspect now runs with nothing beside it: if its worker dies now, it is to blame.
if not owns(ARGV[1], ARGV[2], ARGV[3]) then return 0 end
unit_set(ARGV[1], ARGV[2], 'alone', 1)
return 1
