//! The variables that are visible at the parser's position: counts them against Lua 5.1's limits,
//! and knows which of them are library functions.

/// The name of a global variable, possibly with a field: `string.rep`, `error`.
pub type Path<'a> = Option<(&'a [u8], Option<&'a [u8]>)>;

const LOCALS_MAX: usize = 200;
const UPVALUES_MAX: usize = 60;

/// The error that a script has more variables than Lua 5.1 allows.
pub struct TooMany {
    limit: usize,
    what: &'static str,
    /// The line at which the function begins; 0 for the whole script.
    line: usize,
}

impl TooMany {
    /// The error about too many variables in one assignment (`a, b, c = ...`).
    pub fn targets(limit: usize, function: &Function) -> TooMany {
        TooMany {
            limit,
            what: "variables in assignment",
            line: function.line,
        }
    }

    /// The error's text, as Lua 5.1 words it.
    pub fn text(&self) -> String {
        let TooMany { limit, what, line } = self;
        match line {
            0 => format!("main function has more than {limit} {what}"),
            line => format!("function at line {line} has more than {limit} {what}"),
        }
    }
}

#[derive(Clone, Copy)]
struct Local<'a> {
    name: &'a [u8],
    /// Whether the variable was declared as a function (`local function f`).
    function: bool,
    /// The global variable, or the field of one, with which the local variable was initialised.
    origin: Path<'a>,
}

struct Block {
    /// The function's number of local variables before the block.
    locals: usize,
    is_loop: bool,
}

/// A Lua function that is being parsed.
pub struct Function<'a> {
    line: usize,
    pub variadic: bool,
    /// Whether the function's body contains `...`.
    pub reads_arguments: bool,
    /// The index, in `locals`, of the variable `arg`, which Lua 5.1 adds to the parameters of a
    /// function with `...`.
    arg: Option<usize>,
    pub uses_arg: bool,
    locals: Vec<Local<'a>>,
    /// Local variables that are declared but not visible yet.
    pending: Vec<Local<'a>>,
    /// The local variables of outer functions that this function uses (upvalues): the index of the
    /// outer function, and the variable's index in it.
    upvalues: Vec<(usize, usize)>,
    blocks: Vec<Block>,
}

/// The Lua functions around the parser's position, the innermost last.
pub struct Scope<'a> {
    functions: Vec<Function<'a>>,
    opened: usize,
}

impl<'a> Scope<'a> {
    /// The scope at the beginning of a script.
    pub fn new() -> Scope<'a> {
        let mut scope = Scope {
            functions: Vec::new(),
            opened: 0,
        };
        scope.open_function(0);
        scope.function().variadic = true;
        scope
    }

    /// Enters a Lua function that begins at this line.
    pub fn open_function(&mut self, line: usize) {
        self.opened += 1;
        self.functions.push(Function {
            line,
            variadic: false,
            reads_arguments: false,
            arg: None,
            uses_arg: false,
            locals: Vec::new(),
            pending: Vec::new(),
            upvalues: Vec::new(),
            blocks: Vec::new(),
        });
    }

    /// The number of functions that were entered so far.
    pub fn opened(&self) -> usize {
        self.opened
    }

    /// Leaves the innermost Lua function at the parser's position.
    pub fn close_function(&mut self) {
        self.functions.pop();
    }

    /// The innermost Lua function around the parser's position.
    pub fn function(&mut self) -> &mut Function<'a> {
        self.functions.last_mut().expect("there is always one")
    }

    /// Enters a block of statements, which may be the body of a loop.
    pub fn open_block(&mut self, is_loop: bool) {
        let function = self.function();
        let locals = function.locals.len();
        function.blocks.push(Block { locals, is_loop });
    }

    /// Leaves a block of statements, whose local variables are then forgotten.
    pub fn close_block(&mut self) {
        let function = self.function();
        if let Some(block) = function.blocks.pop() {
            function.locals.truncate(block.locals);
        }
    }

    /// Whether the parser's position is in a loop of the innermost function.
    pub fn is_in_loop(&mut self) -> bool {
        self.function().blocks.iter().any(|block| block.is_loop)
    }

    /// Declares a local variable, which is visible from [`Scope::show`] on.
    pub fn declare(&mut self, name: &'a [u8]) -> Result<(), TooMany> {
        let function = self.function();
        if function.locals.len() + function.pending.len() == LOCALS_MAX {
            return Err(TooMany {
                limit: LOCALS_MAX,
                what: "local variables",
                line: function.line,
            });
        }
        function.pending.push(Local {
            name,
            function: false,
            origin: None,
        });
        Ok(())
    }

    /// Makes the declared local variables visible; `origins` are the global variables, or fields,
    /// with which they were initialised.
    pub fn show(&mut self, origins: &[Path<'a>]) {
        let function = self.function();
        for (local, origin) in function.pending.iter_mut().zip(origins) {
            local.origin = *origin;
        }
        function.locals.append(&mut function.pending);
    }

    /// Makes the declared parameters visible; the last one is `arg` if the function is variadic.
    pub fn show_parameters(&mut self) {
        self.show(&[]);
        let function = self.function();
        function.arg = function.variadic.then(|| function.locals.len() - 1);
    }

    /// Makes the declared local variable visible, and notes that it is a function of the script.
    pub fn show_function(&mut self) {
        for local in &mut self.function().pending {
            local.function = true;
        }
        self.show(&[]);
    }

    /// Whether a name was declared as a function of the script.
    pub fn is_lua_function(&self, name: &[u8]) -> bool {
        let mut locals = self.functions.iter().rev();
        let found = locals.find_map(|f| f.locals.iter().rfind(|local| local.name == name));
        found.is_some_and(|local| local.function)
    }

    /// The word by which error messages call a variable of this name: local, upvalue or global.
    pub fn kind(&self, name: &[u8]) -> &'static str {
        let knows = |function: &Function| function.locals.iter().any(|local| local.name == name);
        let innermost = self.functions.len() - 1;
        match self.functions.iter().rposition(knows) {
            Some(depth) if depth == innermost => "local",
            Some(_) => "upvalue",
            None => "global",
        }
    }

    /// What a variable's name stands for: the name itself if the variable is global, otherwise the
    /// global variable with which the local variable was initialised.
    pub fn resolve(&mut self, name: &'a [u8]) -> Result<Path<'a>, TooMany> {
        let innermost = self.functions.len() - 1;
        for depth in (0..=innermost).rev() {
            let locals = &self.functions[depth].locals;
            if let Some(place) = locals.iter().rposition(|local| local.name == name) {
                let origin = locals[place].origin;
                self.functions[depth].uses_arg |= self.functions[depth].arg == Some(place);
                for function in &mut self.functions[depth + 1..] {
                    function.use_outer((depth, place))?;
                }
                return Ok(origin);
            }
        }
        Ok(Some((name, None)))
    }
}

impl Function<'_> {
    fn use_outer(&mut self, variable: (usize, usize)) -> Result<(), TooMany> {
        if self.upvalues.contains(&variable) {
            return Ok(());
        }
        if self.upvalues.len() == UPVALUES_MAX {
            return Err(TooMany {
                limit: UPVALUES_MAX,
                what: "upvalues",
                line: self.line,
            });
        }
        self.upvalues.push(variable);
        Ok(())
    }
}
