//! `proc-title-template`: what `ps` shows for the server and its children.

use crate::config::Config;

impl Config {
    /// The title of this process or of a child; `name` stands where the template has the title,
    /// such as the path of the executable.
    pub fn process_title(&self, name: &str) -> String {
        let address = self
            .bind
            .first()
            .map_or("*", |bind| bind.strip_prefix('-').unwrap_or(bind));
        let listening = if self.port != 0 {
            format!("{address}:{}", self.port)
        } else if self.tls_port != 0 {
            format!("{address}:{}", self.tls_port)
        } else {
            self.unixsocket.to_string()
        };
        let file = self
            .file
            .as_ref()
            .map_or(String::new(), |file| file.display().to_string());
        let variables = [
            ("{title}", name.to_string()),
            ("{listen-addr}", listening),
            (
                "{server-mode}",
                if self.cluster_enabled {
                    "[cluster]"
                } else {
                    ""
                }
                .to_string(),
            ),
            ("{port}", self.port.to_string()),
            ("{tls-port}", self.tls_port.to_string()),
            ("{unixsocket}", self.unixsocket.to_string()),
            ("{config-file}", file),
        ];
        let template = self.proc_title_template.to_string();
        let fill = |text: String, (name, value): &(&str, String)| text.replace(name, value);
        variables.iter().fold(template, fill).trim_end().to_string()
    }
}
