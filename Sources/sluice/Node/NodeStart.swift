import Glibc
import Logging
import Observability
import Support

/// The first steps of every node.
enum NodeStart {
    /// Starts logging and metrics, raises the file descriptor limit and logs the node's version and effective settings.
    /// - Returns: the node's logger, with its kind and name as metadata.
    static func begin(
        _ kind: Setting.Reader, name: String, source: SettingsSource, logging: (level: Logger.Level, format: LogFormat)
    ) -> Logger {
        ignoreHangUp()
        Telemetry.start(logLevel: logging.level, logFormat: logging.format)
        let descriptors = raiseDescriptorLimit()
        var logger = Logger(label: "sluice.\(kind.rawValue)")
        var facts = effectiveSettings(of: source, for: kind)
        facts["version"] = "\(BuildInformation.version)"
        facts["build"] = "\(BuildInformation.configuration)"
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

    /// Ignores SIGHUP, which must not end a node. Services that reload files at SIGHUP install their own handlers.
    static func ignoreHangUp() { signal(SIGHUP, SIG_IGN) }

    /// The settings with a value that this kind of node reads, with secrets redacted.
    static func effectiveSettings(of source: SettingsSource, for kind: Setting.Reader) -> Logger.Metadata {
        var facts: Logger.Metadata = [:]
        for setting in SettingTable.all where setting.readers.contains(kind) {
            guard let value = source.value(setting.name) else { continue }
            facts[setting.name] = "\(SettingsSource.shown(value.text, of: setting))"
        }
        return facts
    }

    /// Raises the soft limit of file descriptors to the hard limit. Every client and every upstream connection uses a descriptor.
    /// - Returns: the resulting limit; 0: unknown.
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
