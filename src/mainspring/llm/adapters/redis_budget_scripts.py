"""Scripts by which a Redis or Valkey changes its counts of budgets.

Under `mainspring:{PROJECT}:1:budgets:`: `of:NAME:END` is a hash of what is spent (`s`) and reserved (`h`), of each
reservation (`r:ID`) and what of it is charged (`u:ID`), and of what is charged of those whose process seemed dead
(`x:ID`); `names` has the names by the ends of their periods, `at:PROCESS` is there while a process lives. Scripts are
told whole amounts, so one whose answer was lost is sent again.
"""

from __future__ import annotations

# KEYS: the process, names, then counts. ARGV: its lease (ms), ID, whether to look for the dead (1: before a refusal;
# 2: in any case), the root of processes, the time (ms); then for each count its name, the end of its period and how
# long it is kept (ms), the call's most, the limit.
RESERVE = """
local id = ARGV[2]
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
local function state(key)
  local v = redis.call('HMGET', key, 's', 'h', 'r:' .. id, 'u:' .. id, 'x:' .. id)
  local gone = v[5]
  return tonumber(v[1] or 0), tonumber(v[2] or 0), tonumber(v[3] or 0), tonumber(v[4] or gone or 0), gone == '-'
end
local function held(most, used) return math.max(0, most - used) end
local function release(key)
  local living, fields = {}, redis.call('HGETALL', key)
  local of = {}
  for i = 1, #fields, 2 do of[fields[i]] = fields[i + 1] end
  for field, most in pairs(of) do
    if string.sub(field, 1, 2) == 'r:' then
      local whose = string.sub(field, 3)
      local process = string.match(whose, '^(.*)/')
      if living[process] == nil then living[process] = redis.call('EXISTS', ARGV[4] .. process) == 1 end
      if not living[process] then
        local used = tonumber(of['u:' .. whose] or '0')
        local rest = held(tonumber(most), used)
        redis.call('HINCRBY', key, 'h', 0 - rest)
        redis.call('HINCRBY', key, 's', rest)
        redis.call('HDEL', key, field, 'u:' .. whose)
        redis.call('HSET', key, 'x:' .. whose, used + rest)
      end
    end
  end
end
for try = 1, 2 do
  local short, free, unspent = 0, 0, 0
  for i = 3, #KEYS do
    local at = 5 * (i - 3) + 6
    local s, h, r, u, over = state(KEYS[i])
    if over then return {-1} end
    local most, limit = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
    local more = held(most, u) - held(r, u)
    if more > 0 and s + h + more > limit then
      short, free, unspent = i - 2, limit - s - h, limit - s
      break
    end
  end
  if short == 0 and (try == 2 or ARGV[3] ~= '2') then break end
  if try == 2 or ARGV[3] == '0' then return {short, free, unspent} end
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[5])
  for i = 3, #KEYS do release(KEYS[i]) end
end
local found = {0}
for i = 3, #KEYS do
  local at = 5 * (i - 3) + 6
  local s, h, r, u = state(KEYS[i])
  local most = tonumber(ARGV[at + 3])
  h = h + held(math.max(most, r), u) - held(r, u)
  redis.call('HSET', KEYS[i], 'h', h, 'r:' .. id, math.max(most, r), 'u:' .. id, u)
  redis.call('HDEL', KEYS[i], 'x:' .. id)
  redis.call('PEXPIRE', KEYS[i], ARGV[at + 2])
  redis.call('ZADD', KEYS[2], ARGV[at + 1], ARGV[at])
  found[#found + 1] = tonumber(ARGV[at + 4]) - s - h
end
return found
"""
# KEYS: counts. ARGV: ID, whether it is the last charge (1; 2 if a script that reserves may come after it); for each
# count what is used, and how long it is kept (ms).
CHARGE = """
local id, last = ARGV[1], ARGV[2] ~= '0'
for i, key in ipairs(KEYS) do
  local used = tonumber(ARGV[2 * i + 1])
  local v = redis.call('HMGET', key, 'r:' .. id, 'u:' .. id, 'x:' .. id)
  local most, before = tonumber(v[1] or 0), tonumber(v[2] or (v[3] ~= '-' and v[3]) or 0)
  if v[1] or (v[3] and v[3] ~= '-') then
    redis.call('HINCRBY', key, 's', used - before)
    local now = 0
    if not last then now = math.max(0, most - used) end
    if v[1] then redis.call('HINCRBY', key, 'h', now - math.max(0, most - before)) end
    if not last and v[1] then
      redis.call('HSET', key, 'u:' .. id, used)
    elseif not last then
      redis.call('HSET', key, 'x:' .. id, used)
    else
      redis.call('HDEL', key, 'r:' .. id, 'u:' .. id, 'x:' .. id)
    end
  end
  if ARGV[2] == '2' then redis.call('HSET', key, 'x:' .. id, '-') end
  redis.call('PEXPIRE', key, ARGV[2 * i + 2])
end
"""
