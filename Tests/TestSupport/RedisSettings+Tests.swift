import NIOCore
import RedisClient

extension RedisSettings {
    /// Settings for tests: a busy machine may take many seconds to schedule a test, so deadlines that are not the subject of the test are
    /// far longer than in production.
    package static var forTests: RedisSettings {
        var settings = RedisSettings()
        settings.commandTimeout = .seconds(60)
        settings.connectTimeout = .seconds(60)
        settings.silence = .seconds(60)
        return settings
    }
}
