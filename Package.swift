// swift-tools-version: 6.2
import PackageDescription

/// Warnings are errors where the code is judged (`CI` is set there), so that a newer toolchain's new warning never keeps a user from
/// building.
let strict: [SwiftSetting] = Context.environment["CI"] != nil ? [.treatAllWarnings(as: .error)] : []
/// An asynchronous function stays on its caller's executor: else each call between an actor on an event loop and Redis would cross two
/// threads.
let settings: [SwiftSetting] =
    [
        .swiftLanguageMode(.v6), .enableUpcomingFeature("NonisolatedNonsendingByDefault"), .enableUpcomingFeature("MemberImportVisibility"),
        .strictMemorySafety(), .enableExperimentalFeature("Lifetimes"),
    ] + strict

let nio = "swift-nio"
let core: [Target.Dependency] = [.product(name: "NIOCore", package: nio), .product(name: "Logging", package: "swift-log")]

let package = Package(
    name: "sluice",
    products: [.executable(name: "sluice", targets: ["sluice"])],
    dependencies: [
        .package(url: "https://github.com/apple/swift-nio.git", from: "2.101.0"),
        .package(url: "https://github.com/apple/swift-nio-ssl.git", from: "2.37.0"),
        .package(url: "https://github.com/apple/swift-nio-extras.git", from: "1.35.0"),
        .package(url: "https://github.com/apple/swift-log.git", from: "1.16.0"),
        .package(url: "https://github.com/apple/swift-metrics.git", from: "2.13.0"),
        .package(url: "https://github.com/apple/swift-collections.git", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-crypto.git", from: "4.5.0"),
        .package(url: "https://github.com/apple/swift-http-types.git", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-argument-parser.git", from: "1.8.0"),
        .package(url: "https://github.com/swiftlang/swift-subprocess.git", from: "1.0.0"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle.git", from: "2.13.0"),
        .package(url: "https://github.com/hummingbird-project/hummingbird.git", from: "2.28.0"),
        .package(url: "https://github.com/vapor/jwt-kit.git", from: "5.7.0"),
        .package(url: "https://github.com/jpsim/Yams.git", from: "6.2.0"),
        .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift.git", from: "0.2.0"),
    ],
    targets: [
        .systemLibrary(name: "CHiredis", providers: [.apt(["libhiredis-dev"])]),
        .systemLibrary(name: "CCurl", providers: [.apt(["libcurl4-openssl-dev"])]),
        .systemLibrary(name: "CEpoll"),
        .systemLibrary(name: "CCrypt", providers: [.apt(["libcrypt-dev"])]),
        .target(name: "Support", swiftSettings: settings),
        .target(name: "JSONCodec", dependencies: ["Support"], swiftSettings: settings),
        .target(name: "Contract", dependencies: ["Support", "JSONCodec"], swiftSettings: settings),
        .target(
            name: "Observability",
            dependencies: [
                "Support", .product(name: "Logging", package: "swift-log"), .product(name: "Metrics", package: "swift-metrics"),
                .product(name: "CoreMetrics", package: "swift-metrics"),
            ],
            swiftSettings: settings),
        .target(
            name: "RedisClient",
            dependencies: core + [
                "CHiredis", "Support",
                .product(name: "NIOConcurrencyHelpers", package: nio),
                .product(name: "NIOPosix", package: nio),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
                .product(name: "DequeModule", package: "swift-collections"),
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "Metrics", package: "swift-metrics"),
            ], swiftSettings: settings),
        .target(
            name: "JobQueue",
            dependencies: core + [
                "Support", "JSONCodec", "Contract", "RedisClient", .product(name: "NIOPosix", package: nio),
                .product(name: "Crypto", package: "swift-crypto"), .product(name: "DequeModule", package: "swift-collections"),
            ],
            resources: [.embedInCode("Scripts")],
            swiftSettings: settings),
        .target(
            name: "CurlTransport",
            dependencies: [
                "CCurl", "CEpoll", "Support", .product(name: "Metrics", package: "swift-metrics"),
                .product(name: "DequeModule", package: "swift-collections"),
            ], swiftSettings: settings),
        .target(
            name: "Upstream",
            dependencies: [
                "Support", "JSONCodec", "Contract", "CurlTransport", .product(name: "Logging", package: "swift-log"),
                .product(name: "Metrics", package: "swift-metrics"),
            ], swiftSettings: settings),
        .target(
            name: "Worker",
            dependencies: core + [
                "Support", "JSONCodec", "Contract", "JobQueue", "CurlTransport", "Upstream",
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "Hummingbird", package: "hummingbird"), .product(name: "NIOPosix", package: nio),
                .product(name: "NIOConcurrencyHelpers", package: nio), .product(name: "Metrics", package: "swift-metrics"),
                .product(name: "DequeModule", package: "swift-collections"),
            ], swiftSettings: settings),
        .target(
            name: "Gateway",
            dependencies: core + [
                "CCrypt", "Support", "JSONCodec", "Contract", "JobQueue", "Observability",
                .product(name: "NIOPosix", package: nio),
                .product(name: "NIOHTTP1", package: nio),
                .product(name: "NIOWebSocket", package: nio),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
                .product(name: "NIOHTTPTypes", package: "swift-nio-extras"),
                .product(name: "NIOHTTPTypesHTTP1", package: "swift-nio-extras"),
                .product(name: "HTTPTypes", package: "swift-http-types"),
                .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
                .product(name: "UnixSignals", package: "swift-service-lifecycle"),
                .product(name: "Metrics", package: "swift-metrics"),
                .product(name: "HummingbirdCore", package: "hummingbird"),
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "CryptoExtras", package: "swift-crypto"),
                .product(name: "JWTKit", package: "jwt-kit"),
                .product(name: "DequeModule", package: "swift-collections"),
            ], resources: [.embedInCode("Web/Assets")], swiftSettings: settings),
        .target(
            name: "Simulator",
            dependencies: core + [
                "Support", "JSONCodec", "Contract", .product(name: "NIOPosix", package: nio), .product(name: "NIOHTTP1", package: nio),
                .product(name: "DequeModule", package: "swift-collections"),
            ], swiftSettings: settings),
        .target(
            name: "OperatorTools",
            dependencies: core + [
                "Support", "JSONCodec", "Contract", "Observability", "JobQueue",
                .product(name: "UnixSignals", package: "swift-service-lifecycle"),
                .product(name: "Subprocess", package: "swift-subprocess"),
                .product(name: "NIOPosix", package: nio),
                .product(name: "NIOHTTP1", package: nio),
                .product(name: "NIOWebSocket", package: nio),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
            ], swiftSettings: settings),
        .target(
            name: "Benchmarks",
            dependencies: core + [
                "Support", "JSONCodec", "Contract", "Observability", "RedisClient", "Upstream", "OperatorTools",
                .product(name: "Subprocess", package: "swift-subprocess"),
                .product(name: "NIOPosix", package: nio),
                .product(name: "NIOWebSocket", package: nio),
                .product(name: "Histogram", package: "hdrhistogram-swift"),
            ], swiftSettings: settings),
        .executableTarget(
            name: "sluice",
            dependencies: core + [
                "Support", "JSONCodec", "Contract", "Observability", "RedisClient", "JobQueue", "CurlTransport", "Upstream", "Worker",
                "Gateway", "Simulator", "Benchmarks", "OperatorTools",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
                .product(name: "UnixSignals", package: "swift-service-lifecycle"),
                .product(name: "NIOPosix", package: nio),
                .product(name: "Yams", package: "Yams"),
            ], swiftSettings: settings),
        .target(
            name: "TestSupport",
            dependencies: [
                "Support", "JSONCodec", "Contract", "RedisClient", .product(name: "NIOPosix", package: nio),
                .product(name: "NIOHTTP1", package: nio),
                .product(name: "NIOWebSocket", package: nio),
            ], path: "Tests/TestSupport", exclude: ["Fixtures"], swiftSettings: settings),
        .testTarget(
            name: "ContractTests", dependencies: ["Support", "JSONCodec", "Contract", "TestSupport"], swiftSettings: settings),
        .testTarget(
            name: "RedisClientTests", dependencies: ["RedisClient", "TestSupport", .product(name: "NIOEmbedded", package: nio)],
            swiftSettings: settings),
        .testTarget(
            name: "JobQueueTests",
            dependencies: [
                "Support", "JSONCodec", "Contract", "RedisClient", "JobQueue", "TestSupport", .product(name: "NIOPosix", package: nio),
                .product(name: "NIOConcurrencyHelpers", package: nio),
            ], swiftSettings: settings),
        .testTarget(
            name: "WorkerTests",
            dependencies: [
                "Support", "JSONCodec", "Contract", "JobQueue", "RedisClient", "CurlTransport", "Upstream", "Worker", "TestSupport",
            ],
            swiftSettings: settings),
        .testTarget(
            name: "UpstreamTests",
            dependencies: [
                "Support", "JSONCodec", "Contract", "CurlTransport", "Upstream", "Simulator", "TestSupport",
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
            ],
            swiftSettings: settings),
        .testTarget(
            name: "SimulatorTests", dependencies: ["Support", "JSONCodec", "Contract", "Simulator", "TestSupport"], swiftSettings: settings),
        .testTarget(
            name: "GatewayTests",
            dependencies: [
                "Support", "JSONCodec", "Contract", "RedisClient", "JobQueue", "CurlTransport", "Upstream", "Gateway", "TestSupport",
                .product(name: "NIOEmbedded", package: nio),
            ],
            swiftSettings: settings),
        .testTarget(
            name: "CommandTests",
            dependencies: [
                "sluice", "Support", "JSONCodec", "Contract", "JobQueue", "Observability", "RedisClient", "CurlTransport", "Upstream",
                "Worker", "OperatorTools", "TestSupport",
                .product(name: "Yams", package: "Yams"), .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: settings),
        .testTarget(
            name: "ChaosTests", dependencies: ["TestSupport", "Support", "JSONCodec", "Contract", "sluice"], swiftSettings: settings),
        .testTarget(
            name: "JourneyTests", dependencies: ["TestSupport", "Support", "JSONCodec", "Contract", "RedisClient", "sluice"],
            exclude: ["Scripts"],
            swiftSettings: settings),
    ]
)
