# Renders the batch-connect app's files as Open OnDemand does, with the least of its objects, for a list of jobs on stdin (JSON); prints a list.
# Written from Open OnDemand's documented contract: ERB with trim_mode "-", YAML.safe_load, an OpenStruct for submit, session and context
# for templates, the connection for the view, the session for info.
require "erb"
require "etc"
require "json"
require "ostruct"
require "yaml"

# The dashboard's translations: only its language is asked for.
module I18n
  def self.locale
    ENV["OOD_LOCALE"] || "en"
  end
end

# Its clusters, by id, as far as an app asks for them: which scheduler each is for.
module OodAppkit
  Cluster = Struct.new(:job_config)

  def self.clusters
    { "one" => Cluster.new({ adapter: "slurm" }), "grid" => Cluster.new({ adapter: "sge" }) }
  end
end

# The caller's groups where a job names them: bytes, as Etc gives what is not ASCII where the portal's locale is C.
module Named
  Group = Struct.new(:name)

  class << self
    attr_accessor :groups
  end

  def groups
    Named.groups ? (0...Named.groups.size).to_a : super
  end

  def getgrgid(gid)
    Named.groups ? Group.new(Named.groups.fetch(gid).b) : super
  end
end
Process.singleton_class.prepend(Named)
Etc.singleton_class.prepend(Named)

Attribute = Struct.new(:id, :value)

# The form's values, as templates see them.
class Context
  include Enumerable

  def initialize(values)
    @values = values
  end

  def each
    @values.each { |id, value| yield Attribute.new(id, value) }
  end
end

Template = Struct.new(:session, :context) do
  def scope
    binding
  end
end

def render(text, scope)
  ERB.new(text, trim_mode: "-").result(scope)
end

def yaml(path, scope = nil)
  text = File.read(path)
  text = render(text, scope) if path.end_with?(".erb")
  YAML.safe_load(text).to_h
end

def merged(one, other)
  one.merge(other) { |_key, a, b| a.is_a?(Hash) && b.is_a?(Hash) ? merged(a, b) : b }
end

def answer(job)
  Named.groups = job["groups"]
  values = job["values"] || {}
  case job["what"]
  when "form" then job["files"].map { |path| yaml(path) }.reduce { |one, other| merged(one, other) }
  when "submit" then yaml(job["file"], OpenStruct.new(values).instance_eval { binding })
  when "template" then render(File.read(job["file"]), Template.new(OpenStruct.new(id: "s1"), Context.new(values)).scope)
  when "view", "info" then render(File.read(job["file"]), OpenStruct.new(values).instance_eval { binding })
  end
end

jobs = JSON.parse($stdin.read)
results = jobs.map do |job|
  { "result" => answer(job) }
rescue StandardError, SyntaxError => e
  { "error" => "#{e.class}: #{e.message}" }
end
puts JSON.generate(results)
