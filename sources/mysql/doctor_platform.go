package mysql

import (
	"fmt"
	"strings"
)

// platform is where a server runs, as far as it gives that away. Only servers of one's own have been tried; what is
// said of the services comes from their documentation.
type platform string

const (
	selfHosted   platform = ""
	onRDS        platform = "Amazon RDS"
	onAurora     platform = "Amazon Aurora"
	onCloudSQL   platform = "Google Cloud SQL"
	onAzureMySQL platform = "Azure Database for MySQL"
)

// detectPlatform knows the services by what they leave in the variables, or by the name they are reached under.
func detectPlatform(vars map[string]string, host string) platform {
	version := strings.ToLower(vars["version"] + " " + vars["version_comment"])
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	amazon := strings.HasPrefix(vars["basedir"], "/rdsdbbin/") || strings.HasSuffix(host, ".rds.amazonaws.com") || strings.HasSuffix(host, ".rds.amazonaws.com.cn")
	switch {
	case vars["aurora_version"] != "":
		return onAurora
	case amazon && strings.Contains(vars["basedir"], "oscar"): // Aurora's name within
		return onAurora
	case amazon:
		return onRDS
	case strings.Contains(version, "-google") || strings.Contains(version, "(google)"):
		return onCloudSQL
	case strings.Contains(version, "azure") || strings.HasSuffix(host, ".mysql.database.azure.com"):
		return onAzureMySQL
	}
	return selfHosted
}

// setter says how to change a setting on one server.
type setter struct {
	host    platform
	mariadb bool
}

// dynamic is how to change a variable that takes effect at once; value is as SQL wants it.
func (s setter) dynamic(name, value string) string {
	switch {
	case s.host != selfHosted:
		return s.byService(name, value, "")
	case s.mariadb:
		return fmt.Sprintf("SET GLOBAL %s = %s; -- and in my.cnf under [mysqld]: %s", name, value, cnfLine(name, value))
	}
	return fmt.Sprintf("SET PERSIST %s = %s;", name, value)
}

// static is how to change a variable that is read at the server's start.
func (s setter) static(name, value string) string {
	if s.host != selfHosted {
		return s.byService(name, value, ", then restart the instance")
	}
	return fmt.Sprintf("in my.cnf under [mysqld]: %s; then restart the server", cnfLine(name, value))
}

func (s setter) byService(name, value, then string) string {
	value = strings.Trim(value, "'")
	switch s.host {
	case onRDS:
		return fmt.Sprintf("in the instance's DB parameter group set %s = %s%s", name, value, then)
	case onAurora:
		return fmt.Sprintf("in the DB cluster parameter group set %s = %s%s", name, value, then)
	case onCloudSQL:
		return fmt.Sprintf("add the database flag %s=%s%s", name, value, then)
	}
	return fmt.Sprintf("in the server parameters set %s = %s%s", name, value, then)
}

// cnfLine is a line of my.cnf.
func cnfLine(name, value string) string { return name + " = " + strings.Trim(value, "'") }

// binlogOn is how to switch the binlog on, which no service leaves to a variable.
func (s setter) binlogOn() string {
	switch s.host {
	case onRDS:
		return "turn on automated backups: a backup retention period of at least one day switches the binlog on"
	case onAurora:
		return "in the DB cluster parameter group set binlog_format = ROW, then reboot the writer"
	case onCloudSQL:
		return "gcloud sql instances patch INSTANCE --enable-bin-log"
	}
	return s.static("log_bin", "binlog")
}

// expiry is how to keep the binlog for a number of seconds.
func (s setter) expiry(seconds int64, variable string) string {
	if s.host == onRDS || s.host == onAurora {
		return fmt.Sprintf("CALL mysql.rds_set_configuration('binlog retention hours', %d);", (seconds+3599)/3600)
	}
	if variable == "expire_logs_days" {
		return s.dynamic(variable, fmt.Sprint((seconds+86399)/86400))
	}
	return s.dynamic(variable, fmt.Sprint(seconds))
}
