import Glibc
import Logging
import Observability

/// What every node does before anything else.
enum NodeStart {
    /// Starts logs and metrics, raises the limit of descriptors, and writes the line that says what is starting and with which settings.
    static func begin(
        _ kind: Setting.Reader, name: String, source: SettingsSource, logging: (level: Logger.Level, format: LogFormat)
    ) -> Logger {
        ignoreHangUp()
        Telemetry.start(logLevel: logging.level, logFormat: logging.format)
        let descriptors = raiseDescriptorLimit()
        var logger = Logger(label: "sluice.\(kind.rawValue)")
        var facts = effectiveSettings(of: source, for: kind)
        facts["version"] = "\(Build.version)"
        facts["build"] = "\(Build.configuration)"
        facts["name"] = "\(name)"
        facts["pid"] = "\(getpid())"
        facts["descriptors"] = "\(descriptors)"
        logger.info("\(kind.rawValue) starting", metadata: facts)
        for (unknown, origin) in source.unknown {
            logger.warning("unknown setting ignored", metadata: ["setting": "\(unknown)", "source": "\(origin)"])
        }
        logger[metadataKey: kind.rawValue] = "\(name)"
        return logger
    }

    /// SIGHUP asks a node to read files again and never ends it, whether or not it has any. Who reads files installs a handler of its own.
    static func ignoreHangUp() { signal(SIGHUP, SIG_IGN) }

    /// Every setting that this kind of node reads and that has a value, secrets redacted.
    static func effectiveSettings(of source: SettingsSource, for kind: Setting.Reader) -> Logger.Metadata {
        var facts: Logger.Metadata = [:]
        for setting in SettingTable.all where setting.readers.contains(kind) {
            guard let value = source.value(setting.name) else { continue }
            facts[setting.name] = "\(SettingsSource.shown(value.text, of: setting))"
        }
        return facts
    }

    /// Every client and every upstream takes a descriptor; shells hand out few by default. Returns how many there may be.
    @discardableResult
    static func raiseDescriptorLimit() -> UInt64 {
        var limit = rlimit()
        let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        guard getrlimit(resource, &limit) == 0 else { return 0 }
        if limit.rlim_cur < limit.rlim_max {
            let before = limit.rlim_cur
            limit.rlim_cur = limit.rlim_max
            if setrlimit(resource, &limit) != 0 { limit.rlim_cur = before }
        }
        return UInt64(limit.rlim_cur)
    }
}
