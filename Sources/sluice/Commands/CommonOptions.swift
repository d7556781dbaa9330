import ArgumentParser
import JSONCodec

struct SettingsOptions: ParsableArguments {
    @Option(
        name: .long, help: ArgumentHelp("Read settings from a file of NAME=value lines; the environment wins over it.", valueName: "file"))
    var config: String?

    var source: SettingsSource { SettingsSource(file: config) }
}

struct JSONOption: ParsableArguments {
    @Flag(name: .long, help: "Print JSON instead of text.")
    var json = false
}
