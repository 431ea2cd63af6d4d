-- To begin a script with that reads Redis's clock, the rest of a key's life, or the size of a key, and then writes.
-- Redis before 7.0 refuses such a script without the call, always or where `lua-replicate-commands` is `no`.
-- Redis 7.0 needs none, and a later server may refuse the call.
pcall(redis.replicate_commands)
