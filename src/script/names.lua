-- The name of a value that an operator does not take, where LuaJIT finds none: an element whose key
-- is not a constant string is `field '?'` in Lua 5.1. Run once for each interpreter, by the first
-- message without a name.
--
--    user_script:1: attempt to index a nil value
--    -> user_script:1: attempt to index field '?' (a nil value)
--
-- The message names the line, not the instruction. So all instructions of the line that may have
-- raised it are looked at: those whose operand has the type of the message, and no name. The
-- instruction that wrote an operand says what it is. If not all of them are elements, the message
-- stays as it is.

local match, tonumber, function_of_script, slot, instruction_at, line_at = ...

local INSTRUCTIONS_MAX = 20000
-- Numbers of LuaJIT's instructions.
local MOV, NOT, UNM, LEN, CAT, KNIL = 18, 19, 20, 21, 38, 44
local ADDVN, ADDVV, POW = 22, 32, 37
local KSTR, KSHORT, KNUM, UGET, FNEW, TNEW, TDUP = 39, 41, 42, 45, 51, 52, 53
local GGET, TGETV, TGETS, TGETB, TSETV, TSETB = 54, 56, 57, 58, 60, 62
local CALLM, CALLT = 65, 68
-- How an instruction uses its first operand: it writes it, or all from it on.
local WRITES, WRITES_FROM = 1, 2
-- What instructions write that always write the same type.
local written = {
    [NOT] = "boolean", [LEN] = "number", [CAT] = "string", [KSTR] = "string", [KSHORT] = "number", [KNUM] = "number",
    [FNEW] = "function", [TNEW] = "table", [TDUP] = "table",
}

-- The parts of an instruction: its number, and its operands a, b, c and d.
local function parts(instruction)
    local bytes = instruction % 2 ^ 32
    local code = bytes % 256
    local rest = (bytes - code) / 256
    local a = rest % 256
    local d = (rest - a) / 256
    local c = d % 256
    return code, a, (d - c) / 256, c, d
end

local function kind_in(register)
    local _, kind = slot(register + 1)
    return kind
end

local function can_be_joined(register)
    local kind = kind_in(register)
    return kind == "string" or kind == "number"
end

-- Of the values from register `first` to `last`, which are joined from the last on, the one that an
-- error is about.
local function not_joined(first, last)
    for register = last, first, -1 do
        if not can_be_joined(register) then
            local before = register - 1
            return register == last and before >= first and not can_be_joined(before) and before or register
        end
    end
end

-- The register of the value that an error of this instruction is about; nil if it is another
-- operator's.
local function refused(operator, kind, code, a, b, c, d)
    if operator == "call" then
        return code >= CALLM and code <= CALLT and a
    elseif operator == "index" then
        return (code >= TGETV and code <= TGETB or code >= TSETV and code <= TSETB) and b
    elseif operator == "concatenate" then
        return code == CAT and not_joined(b, c)
    elseif operator == "get length of" then
        return code == LEN and d
    elseif operator == "perform arithmetic on" then
        if code == UNM then
            return d
        elseif code >= ADDVV and code <= POW then
            return kind_in(b) == kind and b or c
        end
        return code >= ADDVN and code < ADDVV and b
    end
end

-- What was written into a register before an instruction: "element", "named" (LuaJIT would have
-- said so), the type that it always has, or nil for anything else.
local function origin(call, at, register)
    for before = at - 1, 1, -1 do
        local instruction, modes = instruction_at(call, before)
        local code, a, _, _, d = parts(instruction)
        local mode = modes % 8
        if mode == WRITES_FROM and register >= a and (code ~= KNIL or register <= d) then
            return nil
        elseif mode == WRITES and a == register then
            if code == TGETV or code == TGETB then
                return "element"
            elseif code == TGETS or code == UGET or code == GGET then
                return "named"
            elseif code ~= MOV then
                return written[code] or code >= ADDVN and code <= POW and "number" or nil
            elseif slot(d + 1) ~= "(*temporary)" then
                return "named"
            end
            register = d
        end
    end
end

-- Whether all nameless values that the operator may have refused at a line are elements, and there
-- are some.
local function are_elements(call, line, operator, kind)
    local found = false
    for at = 1, INSTRUCTIONS_MAX do
        local instruction = instruction_at(call, at)
        if not instruction then
            return found
        end
        local register = refused(operator, kind, parts(instruction))
        if register and line_at(call, at).currentline == line then
            local name, type = slot(register + 1)
            if name == "(*temporary)" and type == kind then
                local what = origin(call, at, register)
                if not what or what == kind then
                    return false
                end
                found = found or what == "element"
            end
        end
    end
    return false
end

return function(message)
    local before, line, operator, kind = match(message, "^(.*:(%d+): attempt to ([%a ]-)) a (%a+) value$")
    local call, running = function_of_script()
    if not call or running ~= tonumber(line) or not are_elements(call, running, operator, kind) then
        return message
    end
    return before .. " field '?' (a " .. kind .. " value)"
end
