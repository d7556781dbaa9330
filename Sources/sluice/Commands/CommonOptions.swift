import ArgumentParser
import JSONCodec

/// The option of every command that reads settings.
struct SettingsOptions: ParsableArguments {
    @Option(
        name: .long,
        help: ArgumentHelp("Read settings from a file of NAME=value lines; the environment takes precedence.", valueName: "file"))
    var config: String?

    /// The values of the environment and the file.
    var source: SettingsSource { SettingsSource(file: config) }
}

/// The option of every command that can print JSON.
struct JSONOption: ParsableArguments {
    @Flag(name: .long, help: "Print JSON instead of text.")
    var json = false
}
