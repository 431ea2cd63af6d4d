-- Begins a script that reads Redis's clock, the rest of a key's life, or the size of a key, and then writes. Redis
-- before 7.0 refuses such a script without this call: always, or where `lua-replicate-commands` is `no`. Redis 7.0
-- needs no such call, and a later server may refuse it, which `pcall` ignores.
pcall(redis.replicate_commands)
