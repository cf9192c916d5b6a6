//! The server of the Model Context Protocol, used by the client of the Python SDK.

use std::path::Path;
use std::process::Command;

use sotto_testing::environment::isolated;

use crate::python::runs;

const TEXT: &str = "Dear Beatriz Castellanos, write to b.c@example.org.";

const CLIENT: &str = r#"
import asyncio, os
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

async def main():
    parameters = StdioServerParameters(command=os.environ["PROGRAM"], args=["mcp", "--backend", "dense", "--quiet"], env=dict(os.environ))
    async with stdio_client(parameters) as (read, write):
        async with ClientSession(read, write) as session:
            begin = getattr(session, "discover", None) if os.environ["BEGIN"] == "discover" else session.initialize
            if begin is None:
                print("this version of the SDK cannot discover")
                return
            await begin()
            tools = [tool.name for tool in (await session.list_tools()).tools]
            assert tools == ["redact", "restore", "check"], tools
            redacted = await session.call_tool("redact", {"text": os.environ["TEXT"]})
            assert redacted.content[0].text == "Dear [GIVEN_NAME_1] [SURNAME_1], write to [EMAIL_1].", redacted
            restored = await session.call_tool("restore", {"text": redacted.content[0].text})
            assert restored.content[0].text == os.environ["TEXT"], restored

asyncio.run(main())
"#;

#[test]
fn the_python_client_can_use_it() {
    // The client starts the program with the variables of this process that it would be given anyway.
    let own = isolated(Command::new("program"));
    let removed: Vec<(String, String)> = own
        .get_envs()
        .filter(|(_, value)| value.is_none())
        .map(|(name, _)| (name.to_string_lossy().into_owned(), String::new()))
        .collect();
    for begin in ["initialize", "discover"] {
        let mut variables = vec![
            ("TEXT".to_owned(), TEXT.to_owned()),
            ("BEGIN".to_owned(), begin.to_owned()),
            ("PROGRAM".to_owned(), env!("CARGO_BIN_EXE_anonymize").to_owned()),
        ];
        variables.extend(removed.iter().cloned());
        runs(&["mcp"], CLIENT, &variables, Path::new("."), b"");
    }
}
