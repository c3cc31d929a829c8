SECRET_KEY = "hand-made-2017-k3y-of-the-host-with-fifty-characters"

TIME_ZONE = "Asia/Shanghai"

LOG_RENDERING_PERFORMANCE = True
LOG_CACHE_PERFORMANCE = True
LOG_METRIC_ACCESS = True

GRAPHITE_ROOT = "/usr/share/graphite-web"

CONF_DIR = "/etc/graphite"
STORAGE_DIR = "/var/lib/graphite/whisper"
CONTENT_DIR = "/usr/share/graphite-web/static"

WHISPER_DIR = "/var/lib/graphite/whisper"
LOG_DIR = "/var/log/graphite"
INDEX_FILE = "/var/lib/graphite/search_index"  # Search index file

DATABASES = {
    "default": {
        "NAME": "/var/lib/graphite/graphite.db",
        "ENGINE": "django.db.backends.sqlite3",
        "USER": "",
        "PASSWORD": "",
        "HOST": "",
        "PORT": "",
    }
}
